"""A user's own device, with more axes and channels than any of ours."""

from devices import AxisComponent, ChannelComponent, LogicalDevice

AXES = [f"a{number}" for number in range(30)]
CHANNELS = [f"n{number}" for number in range(20)]


Many = type(
    "Many",
    (LogicalDevice,),
    {**{name: AxisComponent() for name in AXES}, **{name: ChannelComponent() for name in CHANNELS}},
)
