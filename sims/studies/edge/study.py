"""The study: does a rolling window of updates have a spectral edge, and does that edge do what was published?"""

from sims.studies.study import Study

PAGE = "edge"
STUDY = Study("edge", PAGE, modules=("sections", "preset"))
