"""The study: which conclusions move with the choices of the measurement?"""

from sims.studies.study import REPRODUCTION, Study

STUDY = Study("robustness", REPRODUCTION, modules=("sections",))
