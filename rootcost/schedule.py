"""The address under which jobs stored by earlier versions name their function; the scheduler lives in `rootcost.service.schedule`."""

from rootcost.service.schedule import run_scheduled as run_scheduled
