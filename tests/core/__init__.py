"""The core alone: logs are forged here and fed to it record by record, restarts included."""
