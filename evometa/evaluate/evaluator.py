"""The one callable that turns candidates into evaluations, wherever it runs."""

from __future__ import annotations

import platform
import resource
import statistics
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from evometa.errors import StudyError
from evometa.evaluate.gate import Rejected, admit
from evometa.evaluate.training import Diverged, forked_random, meta_train, validate
from evometa.records import Candidate, Evaluation, Status, derive_seed
from evometa.study import Study
from evometa.task.protocol import EpisodeBatch


@dataclass(frozen=True)
class Evaluator:
    """Meta-trains candidates on `meta-train` and scores them on `meta-validation`.

    An evaluation depends on the genome, the seed and the study alone. All candidates are scored on
    the same episodes, so that their differences are paired.

    Attributes:
        study: the study, its task loaded.
        seed: the study's seed; draws the common episodes.
        device: `"auto"` (CUDA where there is one), `"cpu"`, `"cuda"`, ...
    """

    study: Study
    seed: int = 0
    device: str = "auto"

    def __call__(self, pack: Sequence[Candidate]) -> list[Evaluation]:
        """Evaluate each candidate of a pack; never raises for what a candidate does."""
        device = choose_device(self.device)
        if device.type == "cpu":
            torch.set_num_threads(1)  # one worker a core: more threads would fight for cores
        return [self._evaluate(candidate, device) for candidate in pack]

    def episodes(self) -> EpisodeBatch:
        """Draw the common meta-validation episodes of the study."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "meta-validation"))
        return self.study.task.episodes(
            "meta-validation", self.study.training.validation, generator
        )

    def _evaluate(self, candidate: Candidate, device: torch.device) -> Evaluation:
        started_at, started = time.time(), time.perf_counter()
        blank = Evaluation(
            candidate,
            Status.ERROR,
            norm=self.study.training.norm,
            device=device_name(device),
            node=platform.node(),
            started_at=started_at,
        )
        try:
            result = self._measure(candidate, device, blank)
        except Rejected as reason:
            result = replace(blank, status=Status.INVALID, error=str(reason))
        except Diverged as reason:
            result = replace(blank, status=Status.DIVERGED, error=str(reason))
        except (torch.OutOfMemoryError, MemoryError) as error:
            result = replace(blank, status=Status.OOM, error=str(error))
        except Exception:
            result = replace(blank, status=Status.ERROR, error=traceback.format_exc())
        return replace(result, seconds=time.perf_counter() - started)

    def _measure(self, candidate: Candidate, device: torch.device, blank: Evaluation) -> Evaluation:
        study = self.study
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        admission = admit(study, candidate.genome, candidate.seed, device)
        train_seed = derive_seed(candidate.seed, "meta-train")
        with forked_random(train_seed):  # what the user's module draws while training
            meta, curve = meta_train(
                admission.learner,
                study.task,
                study.training,
                seed=train_seed,
                plan=admission.plan,
                device=device,
            )
            outcome = validate(
                admission.learner,
                meta,
                self.episodes(),
                metrics=study.task.metrics,
                plan=admission.plan,
                device=device,
            )
        metrics = {name: statistics.fmean(values) for name, values in outcome.scores.items()}
        return replace(
            blank,
            status=Status.OK,
            metrics={
                **metrics,
                "params": float(admission.cost.params),
                "macs": float(admission.cost.macs),
                "adapt_seconds": outcome.adapt_seconds,
            },
            scores=tuple(outcome.scores[study.task.metrics[0]]),
            curve=tuple(curve),
            signature=admission.signature,
            network=admission.learner.network.text,
            plan=admission.plan,
            peak_memory_bytes=peak_memory(device),
        )


def choose_device(name: str) -> torch.device:
    """Return the device of a name; `"auto"` is CUDA where there is one.

    Raises:
        StudyError: if PyTorch knows no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise StudyError(f"`device` must be 'auto', 'cpu', 'cuda', ..., got {name!r}") from error


def device_name(device: torch.device) -> str:
    """Return a name a person knows: the card's, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def peak_memory(device: torch.device) -> int:
    """Return the peak bytes of the device since it was reset, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
