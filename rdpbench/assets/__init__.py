"""Files that are downloaded, checked by their hash, and then used; and the user's programs.

``hashes``, ``download``, ``archive``, ``weights``, ``load``, in this order; ``program`` runs what the user brings.
"""
