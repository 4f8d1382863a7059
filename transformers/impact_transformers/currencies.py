"""The active alphabetic currency codes of ISO 4217: what impact.com's ``CurrencyCode`` may hold.

Source: https://www.iso.org/iso-4217-currency-codes.html (List One, national currencies and funds). Left out on purpose:
codes withdrawn up to January 2026 (the last: ``BGN``, replaced by the euro) and the codes in which no order is paid:
metals, bond units, drawing rights and other units of account, ``XTS`` (tests) and ``XXX`` (no currency).
"""

from typing import Final

_CODES: Final = """
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

CURRENCIES: Final[frozenset[str]] = frozenset(_CODES.split())
"""Three upper-case letters each; compare after upper-casing the sender's value."""
