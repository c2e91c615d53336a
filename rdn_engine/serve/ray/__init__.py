"""The engine on Ray: archives on Ray Data, live streams on Ray Serve. Modules import `ray` when they are called."""
