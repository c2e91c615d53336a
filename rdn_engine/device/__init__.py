"""The runtime behind `device="cuda"`, by the same stage names as `host`."""
