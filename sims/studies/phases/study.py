"""The study: which phases does the geometry of states go through in training, and what carries each?"""

from sims.studies.study import Study

PAGE = "phases"
STUDY = Study("phases", PAGE, modules=("sections", "carrier_sections", "comparison_sections"))
