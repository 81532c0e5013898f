"""Take a master through darfix's headless tasks; run in a process of its own.

Arguments: master, camera, entry of the darks or "", folder for results. Writes ``found.npz``.
"""

import sys
from pathlib import Path

import numpy as np
from darfix._core.moment_types import MomentType
from darfix.core.dataset_with_moments import DatasetWithMoments
from darfix.tasks.dimension_definition import DimensionDefinition
from darfix.tasks.hdf5_data_selection import HDF5DataSelection
from darfix.tasks.transformation import TransformationMatrixComputation


def main(master: str, camera: str, dark: str, results: str) -> None:
    inputs = {
        "raw_input_file": master,
        "raw_detector_data_path": f"/1.1/measurement/{camera}",
        "raw_metadata_path": "/1.1/instrument/positioners",
        "treated_data_dir": results,
    }
    if dark:
        inputs |= {"dark_input_file": master, "dark_detector_data_path": f"/{dark}/measurement/{camera}"}
    selection = HDF5DataSelection(inputs=inputs)
    selection.run()
    definition = DimensionDefinition(inputs={"dataset": selection.outputs.dataset})
    definition.run()
    dataset = definition.outputs.dataset
    transformation = TransformationMatrixComputation(
        inputs={"dataset": dataset, "kind": "magnification", "magnification": 0.00065, "orientation": 0}
    )
    transformation.run()
    # what the GrainPlot task does first; the task itself wants Qt
    with_moments = DatasetWithMoments.from_dataset(transformation.outputs.dataset)
    with_moments.apply_moments()
    moments = with_moments.moments_dims
    dims = [dataset.dims[i] for i in range(dataset.dims.ndim)]
    constants = dataset.positioners.constants
    np.savez(
        Path(results) / "found.npz",
        names=[dim.name for dim in dims],
        sizes=[dim.size for dim in dims],
        mainx=constants["mainx"],
        obx=constants["obx"],
        **{f"com_{dim.name}": moments[dim.name][MomentType.COM] for dim in dims},
    )


main(*sys.argv[1:])
