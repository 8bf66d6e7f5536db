# The public names, for type checkers and editors; __init__.py reads from here where each of them lives.
from unmerge.api.analysis import audit as audit
from unmerge.api.analysis import decompose as decompose
from unmerge.api.analysis import recover as recover
from unmerge.api.creation import merge as merge
from unmerge.api.creation import train as train
from unmerge.api.inputs import open_model as open_model
from unmerge.api.inputs import task_vector as task_vector
from unmerge.api.removal import ablate as ablate
from unmerge.api.removal import verify as verify
from unmerge.auditing.record import Audit as Audit
from unmerge.checkpoints.adapter import Adapter as Adapter
from unmerge.checkpoints.checkpoint import Checkpoint as Checkpoint
from unmerge.checkpoints.difference import Difference as Difference
from unmerge.core.errors import BadInput as BadInput
from unmerge.core.errors import BadOutput as BadOutput
from unmerge.core.errors import MissingExtra as MissingExtra
from unmerge.core.errors import UnmergeError as UnmergeError
from unmerge.core.progress import Progress as Progress
from unmerge.decomposition.ablation_record import AblationRecord as AblationRecord
from unmerge.decomposition.dictionary import Dictionary as Dictionary
from unmerge.decomposition.result import Absent as Absent
from unmerge.decomposition.result import Component as Component
from unmerge.decomposition.result import Decomposition as Decomposition
from unmerge.decomposition.result import Unexplained as Unexplained
from unmerge.evaluation.exact_match import exact_match as exact_match
from unmerge.recipes.merge import MergeRecord as MergeRecord
from unmerge.recipes.record import RecoveredRecipe as RecoveredRecipe
from unmerge.training.adapters import AdapterRecord as AdapterRecord
from unmerge.training.recipe import TrainingRecipe as TrainingRecipe
from unmerge.vectors.delta import Dense as Dense
from unmerge.vectors.delta import LowRank as LowRank
from unmerge.vectors.source import Held as Held
from unmerge.verification.record import Verification as Verification

__version__: str
