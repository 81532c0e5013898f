"""Run in a process of its own, because importing darling compiles for half a minute: print its moments to a file.

``python check_darling.py OUT``
"""

import sys

import darling
import numpy as np

result = {}
for name, folder, file, reader in (
    ("mosa", "mosa_scan_id03", "mosa_scan.h5", darling.reader.MosaScan),
    ("rocking", "rocking_scan_id03", "rocking.h5", darling.reader.RockingScan),
):
    path = f"{darling.assets.path()}/example_data/{folder}/{file}"
    for background in (0, 105):
        data = darling.DataSet(reader(path), scan_id="1.1")
        if background:
            data.subtract(background)
        mean, covariance = data.moments()
        shape = data.data.shape[:2]
        result[f"{name}_{background}_mean"] = np.reshape(mean, (*shape, -1))
        result[f"{name}_{background}_variance"] = np.reshape(covariance, (*shape, -1))
        result[f"{name}_{background}_kam"] = darling.properties.kam(np.reshape(mean, (*shape, -1)), (5, 5))
    result[f"{name}_path"] = path
np.savez(sys.argv[1], **result)
