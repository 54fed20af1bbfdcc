"""The study: do states learn the predictive operator of the task?"""

from sims.studies.study import Study

PAGE = "markov"
STUDY = Study("markov", PAGE, modules=("sections",))
