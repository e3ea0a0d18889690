"""Problems to solve and to learn from, with the settings they are usually held at."""
