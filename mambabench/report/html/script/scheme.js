// Light or dark: the system's wish until the reader picks one.

(function offerSchemes() {
  const top = document.querySelector(".top");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const isDark = () => (root.dataset.scheme ? root.dataset.scheme === "dark" : system.matches);
  const button = make("button", { type: "button", className: "scheme" });
  const say = () => {
    button.textContent = isDark() ? "Light colours" : "Dark colours";
  };
  button.addEventListener("click", () => {
    root.dataset.scheme = isDark() ? "light" : "dark";
    say();
  });
  system.addEventListener("change", say);
  say();
  top.append(button);
})();
