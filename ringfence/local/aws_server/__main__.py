"""`python -m ringfence.local.aws_server --port P --home DIR`: serves until SIGTERM or SIGINT."""

from __future__ import annotations

from ringfence.local.aws_server.process import main

if __name__ == "__main__":
    main()
