"""The process variables of areaDetector: those that ophyd's own classes of its drivers and plugins connect to."""

from __future__ import annotations

from typing import Any

from ophyd.areadetector.cam import SimDetectorCam
from ophyd.areadetector.plugins import HDF5Plugin_V34, ROIPlugin_V34

from simulators.epics._variables import Choice, Integer, LongText, Number, Text

__all__ = ["area_detector"]

PARTS = {"cam1:": SimDetectorCam, "HDF1:": HDF5Plugin_V34, "ROI1:": ROIPlugin_V34}
RBV = "_RBV"

NO_YES, DISABLE_ENABLE, DONE = ("No", "Yes"), ("Disable", "Enable"), "Done"
PIXELS = ("Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float32", "Float64")
# the words of ADCore, whose order clients rely on
WORDS = {
    "Acquire": (DONE, "Acquire"),
    "ArrayCallbacks": DISABLE_ENABLE,
    "AutoIncrement": NO_YES,
    "AutoSave": NO_YES,
    "BlockingCallbacks": NO_YES,
    "Capture": (DONE, "Capture"),
    "ColorMode": ("Mono", "Bayer", "RGB1", "RGB2", "RGB3", "YUV444", "YUV422", "YUV421"),
    "Compression": ("None", "N-bit", "szip", "zlib", "Blosc", "BSLZ4", "LZ4", "JPEG"),
    "DataType": PIXELS,
    "DataTypeOut": (*PIXELS, "Automatic"),
    "DeleteDriverFile": NO_YES,
    "DetectorState": (
        "Idle",
        "Acquire",
        "Readout",
        "Correct",
        "Saving",
        "Aborting",
        "Error",
        "Waiting",
        "Initializing",
        "Disconnected",
        "Aborted",
    ),
    "EnableCallbacks": DISABLE_ENABLE,
    "EnableX": DISABLE_ENABLE,
    "EnableY": DISABLE_ENABLE,
    "EnableZ": DISABLE_ENABLE,
    "EnableScale": DISABLE_ENABLE,
    "FilePathExists": NO_YES,
    "FileWriteMode": ("Single", "Capture", "Stream"),
    "FrameType": ("Normal", "Background", "FlatField", "DblCorrelation"),
    "ImageMode": ("Single", "Multiple", "Continuous"),
    "LazyOpen": NO_YES,
    "ReadFile": (DONE, "Read"),
    "ReverseX": NO_YES,
    "ReverseY": NO_YES,
    "SWMRActive": ("Off", "Active"),
    "SWMRMode": ("Off", "On"),
    "SWMRSupported": ("Not Supported", "Supported"),
    "TriggerMode": ("Internal", "External"),
    "WriteFile": (DONE, "Write"),
    "WriteStatus": ("Write OK", "Write error"),
}
# names longer than the 40 characters of a string
LONG = frozenset(
    "AttributesFile ErrorMessage FileName FilePath FileTemplate FullFileName NDAttributesFile StatusMessage "
    "StringFromServer StringToServer WriteMessage XMLFileName".split()
)
SHORT = frozenset(
    "ADCoreVersion DriverVersion FirmwareVersion Manufacturer Model NDArrayPort PluginType PortName SDKVersion "
    "SerialNumber".split()
)
FRACTIONS = ("Time", "Period", "Gain", "Rate", "Temperature", "Offset", "Scale", "Width", "Noise", "Fraction")


def area_detector() -> dict[str, Any]:
    """Return the variables of a driver (``cam1:``), its region of interest (``ROI1:``) and HDF5 plugin (``HDF1:``).

    Returns
    -------
    dict
        Variables by their names, such as ``cam1:Acquire``.
    """
    variables: dict[str, Any] = {}
    for part, cls in PARTS.items():
        for walk in cls.walk_components():
            suffix = getattr(walk.item, "suffix", None)
            if not suffix:
                continue
            name = walk.item.cls.__name__
            text = bool(walk.item.kwargs.get("string"))
            names = [suffix, suffix + RBV] if name in ("EpicsSignalWithRBV", "EpicsPathSignal") else [suffix]
            for full in names:
                variable = variables.setdefault(part + full, _variable(full.removesuffix(RBV), text))
                variable.read_only = full.endswith(RBV)
    for name, variable in variables.items():
        if (readback := variables.get(name + RBV)) is not None:
            variable.on_put = readback.post
    return variables


def _variable(name: str, text: bool) -> Any:
    if words := WORDS.get(name):
        return Choice(value=words[0], enum_strings=words)
    if name in LONG:
        return LongText()
    if text or name in SHORT:
        return Text(value="")
    if name.endswith(FRACTIONS):
        return Number(value=0.0)
    return Integer(value=0)
