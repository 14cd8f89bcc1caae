// simdjson PASSES FILE: the peer of our decoder. Reads messages, one a line, and takes from each what our decoder takes,
// with simdjson's on-demand parser; the symbol as a view, the numbers converted. Prints the nanoseconds a message.
#include <simdjson.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <string>
#include <vector>

using namespace simdjson;

// What an event holds; the fields a kind does not have stay as they were.
struct Event {
    std::string_view symbol;
    uint64_t id, first, last;
    int64_t event_time, time;
    double price, quantity, bid, bid_quantity, ask, ask_quantity;
    bool buyer_maker;
};

// CPU time of this process: what others do meanwhile on a busy machine does not count.
static int64_t cpu_ns()
{
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

// Decodes one envelope, asking for the fields in the order in which the exchange writes them: the fastest way.
static void decode(ondemand::parser &parser, padded_string_view text, Event &event)
{
    auto document = parser.iterate(text);
    std::string_view stream = document["stream"];
    ondemand::object data = document["data"];
    if (stream.find("@bookTicker") != std::string_view::npos) {
        event.id = data["u"];
        event.symbol = data["s"];
        event.bid = data["b"].get_double_in_string();
        event.bid_quantity = data["B"].get_double_in_string();
        event.ask = data["a"].get_double_in_string();
        event.ask_quantity = data["A"].get_double_in_string();
        return;
    }
    bool aggregate = stream.find("@aggTrade") != std::string_view::npos;
    event.event_time = data["E"];
    event.symbol = data["s"];
    event.id = data[aggregate ? "a" : "t"];
    event.price = data["p"].get_double_in_string();
    event.quantity = data["q"].get_double_in_string();
    if (aggregate) {
        event.first = data["f"];
        event.last = data["l"];
    }
    event.time = data["T"];
    event.buyer_maker = data["m"];
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fputs("usage: simdjson PASSES FILE\n", stderr);
        return 1;
    }
    int passes = atoi(argv[1]);
    std::vector<padded_string> messages;
    std::ifstream file(argv[2]);
    for (std::string line; std::getline(file, line);)
        messages.emplace_back(line);
    ondemand::parser parser;
    Event event = {};
    double sink = 0;
    int64_t start = cpu_ns();
    try {
        for (int pass = 0; pass < passes; pass++)
            for (const padded_string &message : messages) {
                decode(parser, message, event);
                sink += event.price + event.bid;
            }
    } catch (const simdjson_error &error) {
        fprintf(stderr, "simdjson cannot read a message: %s\n", error.what());
        return 1;
    }
    double took = (double)(cpu_ns() - start);
    if (messages.empty() || sink == 0) {
        fprintf(stderr, "%s holds no messages of the exchange.\n", argv[2]);
        return 1;
    }
    printf("{\"ns\":%.2f,\"version\":\"%d.%d\"}\n", took / passes / (double)messages.size(),
           SIMDJSON_VERSION_MAJOR, SIMDJSON_VERSION_MINOR);
    return 0;
}
