"""How a flow policy samples a chunk and scores it; `sample` returns all that scoring needs."""
