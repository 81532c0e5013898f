"""Take a master to darfix's own strain; run in a process of its own.

Arguments: master, camera, folder for results. Writes ``strain.npz``.
"""

import sys
from pathlib import Path

import numpy as np
from darfix._core.moment_types import MomentType
from darfix._processing.strain import strain_obpitch_scan
from darfix.core.dataset_with_moments import DatasetWithMoments
from darfix.core.noise_removal_type import NoiseRemovalType
from darfix.tasks.dimension_definition import DimensionDefinition
from darfix.tasks.hdf5_data_selection import HDF5DataSelection
from darfix.tasks.noise_removal import NoiseRemoval


def main(master: str, camera: str, results: str) -> None:
    selection = HDF5DataSelection(
        inputs={
            "raw_input_file": master,
            "raw_detector_data_path": f"/1.1/measurement/{camera}",
            "raw_metadata_path": "/1.1/instrument/positioners",
            "treated_data_dir": results,
            "dark_input_file": master,
            "dark_detector_data_path": f"/2.1/measurement/{camera}",
        }
    )
    selection.run()
    definition = DimensionDefinition(inputs={"dataset": selection.outputs.dataset})
    definition.run()
    dark = {"method": "mean", "background_type": "Dark data"}
    removal = NoiseRemoval(
        inputs={
            "dataset": definition.outputs.dataset,
            "operations": [{"type": NoiseRemovalType.BS, "parameters": dark}],
        }
    )
    removal.run()
    # what the StrainPlot task does; the task itself wants Qt
    with_moments = DatasetWithMoments.from_dataset(removal.outputs.dataset)
    with_moments.apply_moments()
    obpitch = with_moments.moments_dims["obpitch"][MomentType.COM]
    np.savez(Path(results) / "strain.npz", strain=strain_obpitch_scan(obpitch, None))


main(*sys.argv[1:])
