"""Files that are downloaded, checked by their hash, and then used.

``hashes``, ``download``, ``archive``, ``weights``, ``load``, in this order.
"""
