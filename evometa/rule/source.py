"""Updates as people read them: a formula, and a Python function that needs PyTorch alone."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Sequence
from typing import Any

from evometa.rule.gradient import GradientRule
from evometa.rule.operations import TINY
from evometa.space.expression import LIMITS, Node

_HELPERS = {
    "divide": f"""
        def divide(a, b):  # keeps a distance from 0
            tiny = torch.where(b < 0, -{TINY}, {TINY}).to(b.dtype)
            return a / torch.where(b.abs() < {TINY}, tiny, b)
    """,
    "root": f"""
        def root(a):  # has a derivative at 0
            return a.clamp(min={TINY**2:g}).sqrt()
    """,
    "by_layer": """
        def by_layer(function, values, sizes):  # one number for each layer
            return torch.stack([function(part) for part in values.split(sizes)])
    """,
    "norm": f"""
        def norm(values):
            return (values.square().sum() + {TINY**2:g}).sqrt()
    """,
}
_MEMORY = {
    "average": ("{d} * memory[{i}] + (1 - {d}) * {x}", "after[{i}]"),
    "unbiased": ("{d} * memory[{i}] + (1 - {d}) * {x}", "after[{i}] / (1 - {d} ** (step + 1))"),
    "before": ("{d} * memory[{i}] + (1 - {d}) * {x}", "memory[{i}]"),
    "trace": ("{d} * memory[{i}] + {x}", "after[{i}]"),
}

_LOOSE = {
    "mul": ("div", "neg"),
    "div": ("mul", "div", "neg"),
    "neg": ("mul", "div", "neg"),
    "square": ("mul", "div", "neg", "square", "sqrt"),
    "sqrt": ("mul", "div", "neg", "square", "sqrt"),
}
"""What must stand in parentheses within an operation; sums always do."""


def formula(rule: GradientRule) -> str:
    """Return the update as a formula: `w ← w - rate·g`.

    `g` is the gradient, `w₀` the meta-trained initial weights, `s` the share of steps done, `‖·‖`
    the norm of a layer; `M(g)` the gradient after learned matrices, `pace` and `fade` what a
    network says of a layer, `i`, `f` the gates of a learned cell; `avg(x; d)` a running average
    that keeps the share `d` at each step, `avg*` the same without the bias of its start, `avg₋`
    before the present step, `sum(x; d)` a sum that decays. Learned constants are marked with `~`.
    Before it stands what the first step starts from, if that is not `w₀` alone, and what is added
    to the gradient.
    """
    pull = "" if rule.implicit is None else f"g ← g + {rule.implicit[0]:.4g}·(w - w₀)"
    steps = [*_starts(rule), *([pull] if pull else []), f"w ← w - {_expression(rule)}"]
    return "; ".join(steps)


def _starts(rule: GradientRule) -> list[str]:
    found = [] if rule.context is None else ["w ← 0, what moves the layers"]
    return [*found, *["head ← 2·cₖ, -‖cₖ‖² of the class means cₖ"] * (rule.head == "prototypes")]


def _expression(rule: GradientRule) -> str:
    nodes = rule.expression.nodes
    texts: list[str] = [""] * len(nodes)
    for place in range(len(nodes) - 1, -1, -1):
        node = nodes[place]
        if not isinstance(node.value, str):
            texts[place] = f"{'~' if node.learned else ''}{node.value:.4g}"
            continue
        template = rule.expression.table[node.value].formula
        arguments = []
        for child in node.arguments:
            symbol = str(nodes[child].value) if nodes[child].arguments else ""
            text = texts[child]
            if symbol in _LOOSE.get(str(node.value), ()):
                text = f"({text})"
            elif symbol in ("add", "sub") and node.value not in (*_LOOSE, "add", "sub"):
                text = text[1:-1]  # the operation has parentheses of its own
            arguments.append(text)
        texts[place] = template.format(*arguments)
    return texts[0]


def python_source(rule: GradientRule, name: str = "update") -> str:
    """Return the source of a function that does one inner step; it needs PyTorch alone.

    The function takes vectors, in which the weights of a layer lie together. Called with what the
    rule sees, it gives what the rule gives.

    Raises:
        ValueError: if a primitive of one's own cannot be written out.
    """
    body, used = _statements(rule)
    own = [
        operation.primitive
        for operation in rule.expression.table.values()
        if operation.primitive.function is not None and operation.name in rule.update
    ]
    helpers = [textwrap.dedent(text).strip() for key, text in _HELPERS.items() if key in used]
    helpers += [_own_source(primitive.name, primitive.function) for primitive in own]
    constants = ", ".join(f"{value!r}" for value in rule.expression.learned)
    learned = [function for sense in rule.senses for function in sense.functions]
    helpers += [inspect.getsource(function).strip() for function in learned]
    extras = "".join(f", {name}" for name in _given(rule))
    signature = (
        f"def {name}(parameter, gradient, initial, rate, loss, step, sizes{extras}, memory=None, "
        "constants=None):"
    )
    lines = [signature, *_docstring(rule, constants), *_beginning(rule, body, constants), *body]
    return "\n".join(
        [
            "from __future__ import annotations",
            "",
            "import torch",
            "",
            "",
            *_spaced(helpers),
            *lines,
            "    return parameter - move, after",
            "",
        ]
    )


def _beginning(rule: GradientRule, body: list[str], constants: str) -> list[str]:
    """Return the statements that make what those of the body use."""
    text = "\n".join(body)
    start = []
    if "rate" in rule.update:
        start.append("    rate = torch.as_tensor(rate, dtype=gradient.dtype)")
    if "[layer]" in text:
        start.append("    layer = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))")
    if constants:
        start.append(f"    constants = [{constants}] if constants is None else constants")
        start.append(
            "    c = [torch.as_tensor(value, dtype=gradient.dtype) for value in constants]"
        )
    if rule.expression.memories:
        start.append(
            f"    memory = memory or [torch.zeros_like(gradient)] * {rule.expression.memories}"
        )
    start.append("    after = list(memory or [])")
    if rule.implicit is not None:
        start.append(f"    gradient = gradient + {rule.implicit[0]!r} * (parameter - initial)")
    if rule.clip:
        start.append("    length = (gradient.square().sum() + 1e-16).sqrt()")
        start.append(f"    gradient = gradient * ({rule.clip!r} / length).clamp(max=1.0)")
    return start


def _docstring(rule: GradientRule, constants: str) -> list[str]:
    return [
        f'    """{formula(rule)}',
        "",
        "    Args:",
        "        parameter, gradient, initial: before this step, of the support loss, and before",
        "            the first step; shape (weights,).",
        "        rate: of this step: one, one a layer, or one a weight.",
        "        loss: the support loss, a tensor without axes.",
        "        step: from 0.",
        "        sizes: number of weights of each layer, a list.",
        *(f"        {extra}: learned, shape (weights,)." for extra in rule.extras),
        *(f"        {', '.join(sense.tokens)}: {sense.about}." for sense in rule.senses),
        "        memory: what the last call returned; None at the first step.",
        f"        constants: the learned ones; as they were before training: [{constants}].",
        "",
        "    Returns:",
        "        The parameters after the step, and the memory for the next one.",
        '    """',
    ]


def _given(rule: GradientRule) -> list[str]:
    """Return the names of learned things that the function takes."""
    return [*rule.extras, *(name for sense in rule.senses for name in sense.tokens)]


def _spaced(helpers: Sequence[str]) -> list[str]:
    return [line for helper in helpers for line in (helper, "", "")]


def _statements(rule: GradientRule) -> tuple[list[str], set[str]]:
    """Return one statement an operation, and the helpers that they call."""
    nodes, table = rule.expression.nodes, rule.expression.table
    lines: list[str] = []
    names: list[str] = [""] * len(nodes)
    used: set[str] = set()
    slot, learned = rule.expression.memories, len(rule.expression.learned)
    for place in range(len(nodes) - 1, -1, -1):
        node = nodes[place]
        if not isinstance(node.value, str):
            value = f"gradient.new_tensor({node.value!r})"
            if node.learned:
                learned -= 1
                value = f"c[{learned}]"
                if node.kind == "decay":
                    value += ".clamp({}, {})".format(*LIMITS["decay"])
            names[place] = value
            continue
        if not node.arguments:
            names[place] = _seen(node.value, rule)
            continue
        operation = table[node.value]
        own = operation.primitive.function is not None
        arguments = [
            _as_wide(names, nodes, node, child, operation.primitive.arguments[i], own)
            for i, child in enumerate(node.arguments)
        ]
        if operation.by_layer is not None:
            function = "norm" if node.value == "norm" else "torch.mean"
            used |= {"by_layer", *(["norm"] if node.value == "norm" else [])}
            text = f"by_layer({function}, {arguments[0]}, sizes)"
        elif operation.remembers is not None:
            slot -= 1
            new, text = (
                part.format(d=arguments[0], x=arguments[1], i=slot) for part in _MEMORY[node.value]
            )
            lines.append(f"    after[{slot}] = {new}")
        else:
            code = f"own_{operation.code}" if own else operation.code
            text = code.format(*arguments)
            used |= {helper for helper in ("divide", "root") if text.startswith(f"{helper}(")}
        names[place] = f"v{place}"
        lines.append(f"    v{place} = {text}")
    root = f"{names[0]}[layer]" if nodes[0].kind == "layer" else names[0]
    return [*lines, f"    move = {root}"], used


def _as_wide(
    names: Sequence[str],
    nodes: Sequence[Node],
    node: Node,
    child: int,
    wanted: str,
    own: bool,
) -> str:
    """Return an argument, spread over weights or layers where the operation needs that."""
    kind, have = node.works_on if wanted == "same" else wanted, nodes[child].kind
    if kind == "element" and have == "layer":
        return f"{names[child]}[layer]"
    others = [nodes[c].kind for c in node.arguments if c != child]
    constant = not isinstance(nodes[child].value, str) and not nodes[child].learned
    if kind in others or kind == "decay":  # these spread a number by themselves
        all_constant = all(
            not isinstance(nodes[c].value, str) and not nodes[c].learned for c in node.arguments
        )
        tensors = node.value in ("div", "maximum", "minimum") or own  # which want tensors
        simple = constant and not all_constant and not tensors
        return repr(nodes[child].value) if simple else names[child]
    if kind == "element" and have == "scalar":
        return f"{names[child]}.expand_as(gradient)"
    if kind == "layer" and have == "scalar":
        return f"{names[child]}.expand(len(sizes))"
    return names[child]


def _seen(name: str, rule: GradientRule) -> str:
    if name == "dimension":
        return "gradient.new_tensor(sizes)"
    if name == "depth":
        return "torch.linspace(0, 1, len(sizes), dtype=gradient.dtype, device=gradient.device)"
    if name == "progress":
        return f"gradient.new_tensor(step / {rule.steps})"
    return name


def _own_source(name: str, function: Any) -> str:
    """Return the source of a primitive's function, under a name that nothing else has.

    Raises:
        ValueError: if it has no source, or uses what is defined elsewhere.
    """
    try:
        source = textwrap.dedent(inspect.getsource(function)).strip()
        elsewhere = inspect.getclosurevars(function)
    except (OSError, TypeError) as error:
        raise ValueError(f"the primitive {name!r} has no source to write out") from error
    used = {*elsewhere.nonlocals, *elsewhere.globals} - {"torch"}
    if not source.startswith("def ") or used:
        why = f"it uses {', '.join(sorted(used))}" if used else "it is no function of its own"
        raise ValueError(f"the primitive {name!r} cannot be written out: {why}")
    return re.sub(r"^def \w+", f"def own_{name}", source, count=1)
