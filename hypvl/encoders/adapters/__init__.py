"""Small trainable parts inside a frozen encoder (delta-tuning): one idea a file, put together in ``methods``."""
