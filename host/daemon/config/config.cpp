// See config.hpp: the file as a whole. What a host and a plugin may be given is in load_options.cpp.
#include "config.hpp"

#include "files.hpp"
#include "reader.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include <pwd.h>

namespace bulkhead::daemon {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t file_limit = std::size_t{1} << 20;
constexpr std::size_t longest_socket_path = 107;  // unix(7)

// In calls, the name ends at the first dot.
bool is_name(const std::string& name) {
  const auto fits = [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '-'; };
  return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), fits) && name != "bulkhead";
}
constexpr const char* name_rule = "allowed: up to 64 of A-Z a-z 0-9 _ -, and not 'bulkhead'";

// A table as text in which comments, order and blanks make no difference.
std::string as_text(const toml::node* node) {
  if (!node) return "";
  std::ostringstream out;
  node->visit([&out](const auto& value) {
    using type = std::decay_t<decltype(value)>;
    if constexpr (std::is_same_v<type, toml::table>) out << toml::json_formatter{value};
    else if constexpr (std::is_same_v<type, toml::array>) out << toml::json_formatter{value};
    else out << toml::json_formatter{toml::array{value}};
  });
  return out.str();
}

class config_reader {
 public:
  config_reader(const fs::path& file, const toml::table& whole, std::vector<mistake>& mistakes)
      : base_(fs::absolute(file).parent_path()), whole_(whole), top_(whole, "", mistakes), mistakes_(mistakes) {}

  config read() {
    config out;
    read_socket(out);
    read_users(out);
    read_metrics(out);
    top_.choice("log_format", out.json_log, {{"text", false}, {"json", true}});
    top_.choice("log_level", out.level,
                {{"debug", log_level::debug},
                 {"info", log_level::info},
                 {"warning", log_level::warning},
                 {"error", log_level::error}});
    top_.duration("drain", out.drain);
    top_.table("clients", [&](table_reader& from) {
      from.number("connections", out.clients.connections, 1, 4096);
      from.number("calls", out.clients.calls, 1, 65'536);
      from.size("frame", out.clients.frame, 1024);
      from.size("call_bytes", out.clients.call_bytes, 1024);
      from.size("queued_bytes", out.clients.queued_bytes, 1024);
    });
    read_host_options(top_, out.host, base_);
    read_plugins(out);
    read_groups(out);
    top_.finish();
    for (const auto& [key, node] : whole_)
      if (key != "plugins" && key != "groups" && key != "defaults" && key != "plugin_directory" && key != "drain")
        out.fixed += std::string(key.str()) + "=" + as_text(&node) + "\n";
    return out;
  }

 private:
  void read_socket(config& out) {
    std::string path;
    out.socket = top_.text("socket", path) ? base_ / path : default_socket();
    if (out.socket.native().size() > longest_socket_path)
      mistakes_.push_back(
          {top_.node("socket") ? top_.node("socket")->source().begin.line : 1,
           fmt::format("socket {} is too long; allowed: {} bytes", out.socket.string(), longest_socket_path)});
  }

  void read_users(config& out) {
    top_.list("allow_users", "user names and ids", [&](const toml::node& each) {
      if (const auto id = each.value_exact<std::int64_t>(); id && *id >= 0 && *id < 0xffff'ffff) {
        out.allow_users.push_back(static_cast<unsigned>(*id));
      } else if (const auto name = each.value_exact<std::string>()) {
        if (const passwd* user = ::getpwnam(name->c_str())) out.allow_users.push_back(user->pw_uid);
        else top_.wrong(each, "allow_users: there is no user \"" + *name + "\" here");
      } else {
        top_.wrong(each, "allow_users: allowed are user names and ids, as in [\"www-data\", 1000]");
      }
    });
  }

  void read_metrics(config& out) {
    std::string text;
    if (!top_.text("metrics", text)) return;
    if (text.starts_with("unix:") && text.size() > 5) {
      const fs::path path = base_ / text.substr(5);
      out.metrics = "unix:" + path.string();
      if (path.native().size() <= longest_socket_path) return;
    } else if (text.starts_with("127.0.0.1:")) {
      const std::string port = text.substr(10);
      const bool digits = !port.empty() && port.size() <= 5 && std::all_of(port.begin(), port.end(), ::isdigit);
      out.metrics = text;
      if (digits && std::stoi(port) < 65'536) return;
    }
    top_.wrong(*top_.node("metrics"),
               "metrics is \"" + text + "\"; allowed: \"127.0.0.1:PORT\" (port 0: any) or \"unix:PATH\"");
  }

  void read_plugins(config& out) {
    load_options defaults;
    const auto read_defaults = [&](table_reader& from) { read_load_options(from, defaults, base_); };
    top_.table("defaults", read_defaults);
    fs::path directory;
    std::string text;
    if (top_.text("plugin_directory", text)) {
      directory = base_ / text;
      std::error_code failed;
      for (const auto& entry : fs::directory_iterator(directory, failed))
        if (entry.path().extension() == ".so") add(out, entry.path().stem().string(), entry.path(), defaults);
      if (failed)
        top_.wrong(*top_.node("plugin_directory"),
                   "plugin_directory " + directory.string() + " can't be read: " + failed.message());
    }
    top_.table("plugins", [&](table_reader& all) {
      all.each_table([&](const std::string& name, table_reader& from) {
        const auto at = [&](const std::string& what) { mistakes_.push_back({from.line(), from.name() + what}); };
        if (!is_name(name)) at(std::string(" is no name for a plugin; ") + name_rule);
        fs::path file = directory.empty() ? fs::path() : directory / (name + ".so");
        if (from.text("file", text)) file = base_ / text;
        else if (file.empty()) at(" has no 'file', and there is no plugin_directory to find it in");
        bool enabled = true;
        from.flag("enabled", enabled);
        load_options options = defaults;
        read_load_options(from, options, base_);
        out.plugins.erase(name);
        std::error_code ignored;
        if (enabled && !file.empty() && !fs::is_regular_file(file, ignored)) at(": there is no file " + file.string());
        if (enabled && is_name(name)) add(out, name, file, std::move(options));
      });
    });
    if (out.plugins.empty() && mistakes_.empty())
      mistakes_.push_back({1, "there are no plugins: give plugin_directory, or tables [plugins.NAME] with a 'file'"});
  }

  void read_groups(config& out) {
    top_.table("groups", [&](table_reader& all) {
      all.each_table([&](const std::string& name, table_reader& from) {
        const auto at = [&](const std::string& what) { mistakes_.push_back({from.line(), from.name() + what}); };
        if (!is_name(name)) at(std::string(" is no name for a group; ") + name_rule);
        group_config made{.name = name, .options = {}};
        from.choice("strategy", made.options.strategy,
                    {{"one_for_one", restart_strategy::one_for_one},
                     {"one_for_all", restart_strategy::one_for_all},
                     {"rest_for_one", restart_strategy::rest_for_one}});
        read_intensity(from, made.options.intensity);
        from.list("plugins", "names of plugins", [&](const toml::node& each) { join(out, made, each, from); });
        const toml::node* const list = from.node("plugins");
        if (!list || (list->is_array() && list->as_array()->empty()))
          at(" has no plugins; give 'plugins', an array of their names in the order of their loading");
        std::string settings = name + as_text(whole_["groups"][name].node());
        for (const std::string& each : made.plugins)
          settings += "\n" + out.plugins[each].file.string() + out.plugins[each].settings;
        for (const std::string& each : made.plugins) out.plugins[each].settings = settings;
        out.groups.push_back(std::move(made));
      });
    });
  }

  void join(config& out, group_config& group, const toml::node& member, table_reader& from) {
    const std::string name = member.value_exact<std::string>().value_or("");
    const auto found = out.plugins.find(name);
    if (found == out.plugins.end())
      return from.wrong(member, fmt::format("{}: there is no plugin '{}'; allowed: names of plugins that are enabled",
                                            from.full("plugins"), name));
    if (!found->second.group.empty())
      return from.wrong(member, fmt::format("{}: {} is in group {} already; allowed: each plugin once, in one group",
                                            from.full("plugins"), name, found->second.group));
    found->second.group = group.name;
    group.plugins.push_back(name);
  }

  void add(config& out, const std::string& name, const fs::path& file, load_options options) {
    if (!is_name(name)) {
      mistakes_.push_back({1, file.string() + ": its name can't be that of a plugin; " + name_rule});
      return;
    }
    options.name = name;
    options.limits.frame = out.clients.frame;
    const toml::node_view<const toml::node> own = whole_["plugins"][name];
    const std::string granted = options.policy ? options.policy->to_text() : "";  // it may be from another file
    out.plugins[name] = {
        name, file, std::move(options),
        as_text(whole_.get("defaults")) + as_text(own.node()) + granted + std::to_string(out.clients.frame)};
  }

  const fs::path base_;
  const toml::table& whole_;
  table_reader top_;
  std::vector<mistake>& mistakes_;
};

}  // namespace

fs::path default_socket() {
  if (const char* given = std::getenv("RUNTIME_DIRECTORY"); given && *given) {
    const std::string_view first = given;
    return fs::path(first.substr(0, first.find(':'))) / "daemon.sock";
  }
  if (const char* given = std::getenv("XDG_RUNTIME_DIR"); given && *given && ::geteuid() != 0)
    return fs::path(given) / "bulkhead/daemon.sock";
  return "/run/bulkhead/daemon.sock";
}

config read_config(const fs::path& file) {
  std::vector<mistake> mistakes;
  config out;
  try {
    const auto bytes = cli::read_file(file.string(), file_limit);
    const toml::table whole = toml::parse(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
    out = config_reader(file, whole, mistakes).read();
  } catch (const toml::parse_error& e) {
    mistakes.push_back({e.source().begin.line, std::string(e.description())});
  } catch (const std::runtime_error& e) {
    throw config_error(e.what());
  }
  if (mistakes.empty()) return out;
  std::stable_sort(mistakes.begin(), mistakes.end(), [](const auto& a, const auto& b) { return a.line < b.line; });
  std::string text;
  for (const mistake& each : mistakes)
    text += fmt::format("{}{}:{}: {}", text.empty() ? "" : "\n", file.string(), each.line, each.text);
  throw config_error(text);
}

}  // namespace bulkhead::daemon
