"""Files that are fetched and then trusted.

``hashes``, ``download``, ``archive``, ``weights``, ``load``, in this order.
"""
