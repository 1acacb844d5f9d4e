"""Write a trained candidate as files that adapt with PyTorch alone."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor
from torch.utils import _pytree as pytree

from evometa.errors import EvometaError
from evometa.files import private_folder
from evometa.reuse.card import model_card, rule_of
from evometa.reuse.exported.learner import Learner
from evometa.reuse.learner import FewShotLearner, Progress, trained
from evometa.reuse.programs import Programs, make_programs
from evometa.reuse.samples import Sample, draw_samples
from evometa.reuse.stored import StoredRun
from evometa.reuse.verify import verify
from evometa.store import read_confirmed

SHIPPED = Path(__file__).parent / "exported"


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export has written.

    Attributes:
        folder: where.
        difference: largest difference between its outputs and those of the search-time learner on
            unseen tasks, as a share of the largest output.
    """

    folder: Path
    difference: float


def export(
    run: StoredRun, candidate_id: str, folder: Path, *, progress: Progress | None = None
) -> Exported:
    """Write a candidate's weights, and what it computes as programs, with a card and an example.

    The result is checked: on meta-validation tasks, with several numbers of examples and with
    queries one by one, its outputs must be those of the learner that was searched.

    Args:
        run: the run.
        candidate_id: of the candidate.
        folder: what to create; must not exist, or be empty.
        progress: called while it is trained, if it must be.

    Raises:
        EvometaError: if there is something at `folder`, or the candidate cannot be written in a
            form that PyTorch alone can run; says why.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise EvometaError(f"{folder} exists and is not empty; export to another folder")
    read_confirmed(run.place)  # which the card will need: better to fail now
    learner, now = trained(run, candidate_id, device="cpu", progress=progress)
    samples = draw_samples(run.file.study.task, run.settings.seed)
    programs = make_programs(learner.learner, learner.meta, samples[0])
    facts = _facts(learner, programs)
    existed = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with private_folder(folder / "export") as made:
            _write_programs(programs, made)
            _write_tensors(programs.weights, made / "weights.safetensors")
            _write_tensors(_named(samples[0]), made / "task.safetensors")
            for name in ("learner.py", "example.py"):
                shutil.copyfile(SHIPPED / name, made / name)
            _write_facts(facts, made)
            found = verify(learner, Learner(made), samples)
            facts = {**facts, "limits": found.limits}
            _write_facts(facts, made)
            written = _write_rule(run, candidate_id, made)
            card = model_card(run, candidate_id, learner, now, facts, found.difference, written)
            (made / "README.md").write_text(card, encoding="utf-8")
            for file in made.iterdir():
                file.replace(folder / file.name)
    except BaseException as error:
        if not existed:
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise EvometaError(f"{folder} cannot be written: {error}") from error
        raise
    return Exported(folder, found.difference)


def _facts(learner: FewShotLearner, programs: Programs) -> dict[str, Any]:
    """Return what learner.json says."""
    inputs = [
        {
            "name": leaf.name,
            "shape": list(leaf.shape),
            "dtype": str(leaf.dtype).removeprefix("torch."),
            "low": leaf.low,
            "high": leaf.high,
        }
        for leaf in learner.example.leaves
    ]
    return {
        "inputs": inputs,
        "outputs": learner.outputs,
        "classes": learner.most,
        "labels": None if learner.labels is None else list(learner.labels),
        "dtype": str(learner.dtype).removeprefix("torch."),
        "steps": programs.steps,
        "limits": programs.limits,
        "weights": list(programs.weights),
    }


def _write_facts(facts: dict[str, Any], folder: Path) -> None:
    (folder / "learner.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _write_programs(programs: Programs, folder: Path) -> None:
    torch.export.save(programs.adapt, folder / "adapt.pt2")
    torch.export.save(programs.predict, folder / "predict.pt2")
    if programs.trajectory is not None:
        torch.export.save(programs.trajectory, folder / "trajectory.pt2")


def _write_tensors(tensors: dict[str, Tensor], file: Path) -> None:
    file.write_bytes(save({name: each.contiguous().clone() for name, each in tensors.items()}))


def _named(sample: Sample) -> dict[str, Tensor]:
    """Return a task for the example, its tensors by name."""
    named = {"y": sample.y, "y_new": sample.answers}
    for side, inputs in (("x", sample.x), ("x_new", sample.new)):
        for path, leaf in pytree.tree_flatten_with_path(inputs)[0]:
            named[side + pytree.keystr(path)] = leaf
    return named


def _write_rule(run: StoredRun, candidate_id: str, folder: Path) -> bool:
    """Write the learning rule as Python to be read, if it can be; return whether it was."""
    family, genes = rule_of(run, run.evaluation(candidate_id).candidate.genome)
    try:
        text = family.source(genes, run.file.study.primitives)
    except ValueError:  # a primitive of one's own that uses what is defined elsewhere
        return False
    if text is not None:
        (folder / "rule.py").write_text(text, encoding="utf-8")
    return text is not None
