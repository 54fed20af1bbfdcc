"""The study: do spectra of weights go through waves over depth, and do they say which blocks a model can lose?"""

from sims.studies.study import Study

PAGE = "lifecycle"
STUDY = Study("lifecycle", PAGE, modules=("sections", "removal_sections", "preset"))
