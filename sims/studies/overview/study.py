"""The study: what did the runs of a folder do?"""

from sims.studies.study import Study

PAGE = "report"
STUDY = Study("overview", PAGE, modules=("sections",))
