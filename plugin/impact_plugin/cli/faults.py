"""How commands that transform events report our own defects: as the service logs them, on standard error."""

from impact_plugin.config.settings import LogSettings
from impact_plugin.telemetry import Telemetry, configure_logging
from impact_plugin.transformation.step import ReportFault, faults_to


def log_faults_once() -> ReportFault:
    """Log only the first fault of each type and place, since thousands of events in a file may meet the same one."""
    configure_logging(LogSettings())
    report = faults_to(Telemetry())
    seen: set[tuple[type[Exception], str, int]] = set()

    def report_first(error: Exception) -> None:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        code = "" if trace is None else trace.tb_frame.f_code.co_filename
        place = type(error), code, 0 if trace is None else trace.tb_lineno
        if place not in seen:
            seen.add(place)
            report(error)

    return report_first
