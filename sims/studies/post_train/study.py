"""The study: what do narrow data, preferences and rewards change in the geometry of states and in answers?"""

from sims.studies.study import Study

PAGE = "post_train"
STUDY = Study("post_train", PAGE, modules=("sections",))
