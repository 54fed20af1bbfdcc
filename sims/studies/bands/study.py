"""The study: on how many bands, and with how many seeds, does concentration hold?"""

from sims.studies.study import REPRODUCTION, Study

STUDY = Study("bands", REPRODUCTION, modules=("sections",))
