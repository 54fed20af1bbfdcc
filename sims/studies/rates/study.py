"""The study: do exponents of weights say which matrix wants a higher learning rate, better than depth or chance?"""

from sims.studies.study import Study

PAGE = "rates"
STUDY = Study("rates", PAGE, modules=("sections",))
