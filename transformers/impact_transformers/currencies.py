"""Currency codes of ISO 4217: what impact.com's ``CurrencyCode`` may hold, and how many decimals an amount in them has.

Source: https://www.iso.org/iso-4217-currency-codes.html (List One, national currencies and funds; List Three, withdrawn
codes in which a shop may have sold). Left out on purpose: the codes in which no order is paid: metals, bond units,
drawing rights and other units of account, ``XTS`` (tests) and ``XXX`` (no currency).
"""

from decimal import Decimal
from typing import Final

_ACTIVE: Final = """
    AED AFN ALL AMD AOA ARS AUD AWG AZN
    BAM BBD BDT BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN BZD
    CAD CDF CHE CHF CHW CLF CLP CNY COP COU CRC CUP CVE CZK
    DJF DKK DOP DZD
    EGP ERN ETB EUR
    FJD FKP
    GBP GEL GHS GIP GMD GNF GTQ GYD
    HKD HNL HTG HUF
    IDR ILS INR IQD IRR ISK
    JMD JOD JPY
    KES KGS KHR KMF KPW KRW KWD KYD KZT
    LAK LBP LKR LRD LSL LYD
    MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN
    NAD NGN NIO NOK NPR NZD
    OMR
    PAB PEN PGK PHP PKR PLN PYG
    QAR
    RON RSD RUB RWF
    SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL
    THB TJS TMT TND TOP TRY TTD TWD TZS
    UAH UGX USD USN UYI UYU UYW UZS
    VED VES VND VUV
    WST
    XAF XCD XCG XOF XPF
    YER
    ZAR ZMW ZWG
"""

_RETIRED: Final = """
    AFA ANG AZM BGN BYB BYR CSD CUC CYP EEK GHC HRK LTL LVL MGF MRO MTL MZM ROL SDD SIT SKK SLL SRG STD
    TMM TRL UYP VEB VEF YUM ZMK ZWD ZWL ZWN ZWR
"""
"""Withdrawn since the year 2000. A shop that still writes one says what its amounts are in; another code would make
another amount of them."""

CURRENCIES: Final[frozenset[str]] = frozenset((_ACTIVE + _RETIRED).split())
"""Three upper-case letters each; compare after upper-casing the sender's value."""

_NO_DECIMALS: Final = "BIF BYR CLP DJF GNF ISK JPY KMF KRW MGF PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE_DECIMALS: Final = "BHD IQD JOD KWD LYD OMR TND"

_DECIMALS: Final = {**dict.fromkeys(_NO_DECIMALS.split(), 0), **dict.fromkeys(_THREE_DECIMALS.split(), 3)}
_USUAL: Final = 2
"""The decimals of all other currencies; the few units with four (``CLF``, ``UYW``) are priced in two by shops."""

_UNITS: Final = {decimals: Decimal(1).scaleb(-decimals) for decimals in (0, _USUAL, 3)}


def decimals_of(code: str | None) -> int:
    """How many decimals an amount in the currency has; two where the currency is not known."""
    return _DECIMALS.get(code or "", _USUAL)


def unit_of(code: str | None) -> Decimal:
    """The smallest amount of the currency: 1 yen, 0.01 euro, 0.001 dinar."""
    return _UNITS[decimals_of(code)]


def cent_of(code: str | None) -> Decimal:
    """The smallest amount that can be booked: impact.com takes two decimals, so no less than 0.01.

    https://integrations.impact.com/brand-api-reference/readme/requests
    """
    return max(unit_of(code), _UNITS[_USUAL])
