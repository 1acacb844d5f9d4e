"""Where commands print."""

from rich.console import Console

out = Console(emoji=False)
err = Console(stderr=True, emoji=False)
