"""The study: what do the spectra of one model say, and which of its matrices cannot be told from noise?"""

from sims.studies.study import Study

PAGE = "look"
STUDY = Study("look", PAGE, modules=("sections",))
