"""What can be known of a service before anything of it runs, beyond what its file alone says."""

from __future__ import annotations

from pathlib import Path

from rdn_engine.bundle.directory import Bundle
from rdn_engine.config import RDNConfig
from rdn_engine.errors import ConfigError
from rdn_engine.media.given import given_value
from rdn_engine.plain import check
from rdn_engine.service.config import ServiceSettings
from rdn_engine.service.outputs import JsonlSettings, open_output


def check_all(settings: ServiceSettings) -> None:
    """All that is checked before a service starts, and nothing started: what `rdn-engine run --check` does.

    Args:
        settings: of the service.

    Raises:
        BundleError: for engines that are none.
        BackendUnavailable: for an output whose library is not installed.
        ConfigError: as `preflight` and `open_output`.
        OSError: for a file that is named in the settings and cannot be read.
    """
    preflight(settings, Bundle.open(settings.engines).config)
    for name, output in settings.outputs.items():
        open_output(name, output, lambda kind, message: None).close(drain=False, deadline_s=1.0)


def preflight(settings: ServiceSettings, config: RDNConfig) -> None:
    """Check what needs the model, and what is named elsewhere: no stream may start before all of them can.

    Args:
        settings: of the service.
        config: of the model.

    Raises:
        ConfigError: for a source, a token or an address that is not where it should be, dials that cannot be, or a
            class that the model does not have.
        OSError: for a file that should hold a source or a token and cannot be read.
    """
    for name, output in settings.outputs.items():
        if isinstance(output, JsonlSettings):
            folder = output.path.endswith("/") or Path(output.path).is_dir()
            check(not folder, f"outputs.{name}.path", output.path, "a file, which need not be there yet")
        unknown = sorted(set(output.class_names) - set(config.class_names))
        # Nothing would ever pass the filter, and nobody would say why.
        check(not unknown, f"outputs.{name}.class_names", unknown, f"classes of the model: {list(config.class_names)}")
    dials = config.dials.turned(settings.dials)
    for name, stream in settings.streams.items():
        own = dials.turned(stream.dials, f"streams.{name}.dials")
        own.turned(stream.capacity, f"streams.{name}.capacity")
        try:
            given_value(stream.source)
        except ConfigError as error:
            raise ConfigError(f"streams.{name}.source: {error}") from None
    if settings.http is not None and settings.http.token is not None:
        given_value(settings.http.token, "a token")
    if settings.trace is not None:
        is_address = given_value(settings.trace.endpoint, "an address").startswith(("http://", "https://"))
        if not is_address:
            raise ConfigError("trace.endpoint is not shown, as it may be secret; wanted http://HOST:PORT/v1/traces")
