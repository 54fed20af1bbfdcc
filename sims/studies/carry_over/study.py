"""The study: which of the toy's findings carry over to language models?"""

from sims.studies.study import Study

PAGE = "carry-over"
STUDY = Study("carry_over", PAGE, modules=("sections",))
