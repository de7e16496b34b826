"""The interface for Keras users: ``fit``, ``adapt``, ``rehead`` and tasks of your own."""
