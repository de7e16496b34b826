"""What a Keras user touches: ``fit``, ``adapt``, ``rehead`` and tasks of their own."""
