"""The study: do exponents of weights say how much of each layer can be pruned, better than its depth or chance?"""

from sims.studies.study import Study

PAGE = "pruning"
STUDY = Study("pruning", PAGE, modules=("sections",))
