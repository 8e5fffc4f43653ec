import sys

from issl.jobs import handover

if sys.argv[1:] == [handover.SERVE]:
    from issl.jobs.warm import serve

    serve()  # returns in each job that it forks
else:
    reason = handover.hand_over(sys.argv[1:])
    import os
    if os.environ.get("DBG"): print("REASON", reason, file=sys.stderr)

from issl.cli import main

main()
