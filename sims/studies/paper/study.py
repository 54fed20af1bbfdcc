"""The study: do the paper's toy figures come out again?"""

from sims.studies.study import Study

PAGE = "reproduction"
STUDY = Study(
    "paper",
    PAGE,
    modules=(
        *("numbers", "spectra", "stages", "prediction", "concentration", "layers", "remeasured"),
        "profiles",
    ),
)
