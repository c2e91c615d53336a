"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from rdn_engine.backends.graph import BackendName, Device

EnginesArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Engine directory, as export writes it.")]
BackendOption = Annotated[BackendName, typer.Option(help="What runs the graphs.")]
DeviceOption = Annotated[Device, typer.Option(help="Where they run.")]
