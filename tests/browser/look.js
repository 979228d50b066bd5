// What the tests do on a page: put it in another language, see whether it scrolls sideways, let axe-core judge it.
"use strict";

globalThis.look = (() => {
  const known = {};

  // A page as the service writes it in a language, in the place of the one that is open: a visit for each would take minutes.
  const speak = async (language, path = location.href) => {
    const asked = { headers: { "Accept-Language": language } };
    const text = (known[`${language} ${path}`] ??= await fetch(path, asked).then((answer) => answer.text()));
    const page = new DOMParser().parseFromString(text, "text/html");
    document.documentElement.lang = page.documentElement.lang;
    document.title = page.title;
    document.body.replaceWith(document.importNode(page.body, true));
    return document.documentElement.lang;
  };

  // What stands out to the right, as the width alone helps nobody to find it.
  const overflow = () => {
    const { scrollWidth, clientWidth } = document.documentElement;
    if (scrollWidth <= clientWidth) return [];
    const out = [...document.querySelectorAll("body *")].filter((each) => each.getBoundingClientRect().right > clientWidth + 1);
    return [`${scrollWidth} > ${clientWidth}`, ...out.slice(-3).map((each) => each.outerHTML.slice(0, 160))];
  };

  const sweep = async (languages) => {
    const wrong = [];
    for (const language of languages) {
      const said = await speak(language);
      if (said !== language) wrong.push(`${said} instead of ${language}`);
      wrong.push(...overflow().map((each) => `${language} ${innerWidth}: ${each}`));
    }
    return wrong;
  };

  const judge = async (runOnly) => {
    const asked = { runOnly, resultTypes: ["violations"], iframes: false };
    const { violations } = await axe.run(document, asked);
    return violations.flatMap(({ id, nodes }) => nodes.slice(0, 3).map((node) => `${id}: ${node.html.slice(0, 200)} ${node.failureSummary}`));
  };

  return { speak, overflow, sweep, judge };
})();
