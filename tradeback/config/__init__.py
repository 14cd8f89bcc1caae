"""The configuration: frozen, typed sections. Defaults < YAML file < environment < flags of the command line.

`load_config()` makes the `Config` of a process; its sections are passed whole to what they configure.
`units.py` reads durations and sizes, `values.py` has the types of settings, `sections.py` all settings,
`load.py` merges the sources and says in one sentence what is wrong with a value.
"""

from tradeback.config.load import load_config, notices
from tradeback.config.sections import (
    CacheConfig,
    Config,
    CorsConfig,
    DatabaseConfig,
    DataConfig,
    ExchangeConfig,
    FeaturesConfig,
    HistoryConfig,
    InfluxConfig,
    JournalConfig,
    LimitsConfig,
    LogConfig,
    MessagingConfig,
    MysqlConfig,
    NatsConfig,
    RecorderConfig,
    RedisConfig,
    ResourcesConfig,
    Section,
    ServerConfig,
    Setting,
    WebSocketConfig,
    settings,
)
from tradeback.config.units import format_duration, format_size, parse_duration, parse_size
from tradeback.config.values import SPIN_FULL

__all__ = [
    "SPIN_FULL",
    "CacheConfig",
    "Config",
    "CorsConfig",
    "DataConfig",
    "DatabaseConfig",
    "ExchangeConfig",
    "FeaturesConfig",
    "HistoryConfig",
    "InfluxConfig",
    "JournalConfig",
    "LimitsConfig",
    "LogConfig",
    "MessagingConfig",
    "MysqlConfig",
    "NatsConfig",
    "RecorderConfig",
    "RedisConfig",
    "ResourcesConfig",
    "Section",
    "ServerConfig",
    "Setting",
    "WebSocketConfig",
    "format_duration",
    "format_size",
    "load_config",
    "notices",
    "parse_duration",
    "parse_size",
    "settings",
]
