"""From a request to a folder and what was done; inspections and averages beside it."""

from convert.conversion.averaging import Average, AverageRequest, average
from convert.conversion.conversion import Conversion, convert
from convert.conversion.inspection import Inspection, inspect
from convert.conversion.request import ConversionRequest, SourceRequest

__all__ = [
    "Average",
    "AverageRequest",
    "Conversion",
    "ConversionRequest",
    "Inspection",
    "SourceRequest",
    "average",
    "convert",
    "inspect",
]
