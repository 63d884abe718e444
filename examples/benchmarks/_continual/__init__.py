"""The parts of ``continual.py``: protocols, a peer, warm starts, and streams that last."""
