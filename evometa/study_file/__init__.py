"""Where does a study come from, and what does it need to be run elsewhere, or again?"""

from evometa.study_file.bundle import Bundle
from evometa.study_file.loading import StudyFile, load_kept, load_study
from evometa.study_file.shipping import Shipped
from evometa.study_file.watch import watched

__all__ = ["Bundle", "Shipped", "StudyFile", "load_kept", "load_study", "watched"]
