"""The server of the page: who may ask, what it answers, what it pushes."""
