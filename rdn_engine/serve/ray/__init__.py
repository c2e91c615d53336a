"""The engine on Ray: archives on Ray Data, live sessions on Ray Serve. Modules import `ray` when they are called."""
