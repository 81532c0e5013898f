"""Measurements that made the technique known, run on the physics twin and compared with the truth it knows.

One module per demonstration; each runs its scans in a session like any other, reduces their files, and says how far the
result is from the truth.
"""
