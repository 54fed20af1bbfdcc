"""The study: does anything in the training of a network that memorises tell that it will generalise later?"""

from sims.studies.study import Study

PAGE = "grokking"
STUDY = Study("grokking", PAGE, modules=("sections", "preset"))
