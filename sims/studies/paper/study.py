"""The study: do the paper's toy figures come out again?"""

from sims.studies.study import REPRODUCTION, Study

PAGE = REPRODUCTION
STUDY = Study(
    "paper",
    PAGE,
    modules=(
        *("numbers", "spectra", "stages", "prediction", "concentration", "layers", "data_seeds"),
        "profiles",
    ),
)
